"""The objects of `s3` destinations: their names, their contents, and failures to store them."""
