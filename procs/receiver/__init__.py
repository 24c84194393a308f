"""The receiver: the venue's connections, from sockets to the frames ring."""
