"""What the routes call: requests in, answers out, with no HTTP in between."""
