"""A federation on machines of its own: the folder of each, what is wrong with it, and the apps that run there."""
