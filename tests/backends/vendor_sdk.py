"""Stands for a vendor's SDK: importing it is what a backend's module and plan must not do."""
