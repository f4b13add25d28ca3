"""What the tests of several clouds share: the whole walk of a user, two machines for one job."""
