"""Checks of a deployment's folders: each is a function that takes a machine and yields what is wrong with it."""
