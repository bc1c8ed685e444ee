"""The whole method: nominal images to a fitted detector, new images to maps and scores."""
