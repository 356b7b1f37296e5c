"""The rows. To add one is to add a block to one of these modules."""
