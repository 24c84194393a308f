"""One module a venue: how to subscribe, what its frames say, how its book is proved. Pure: no socket, no clock."""
