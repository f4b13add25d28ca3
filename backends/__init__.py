"""The places that can run the training image, one file each."""
