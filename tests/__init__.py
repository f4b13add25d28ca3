"""The tests of ftlaunch."""
