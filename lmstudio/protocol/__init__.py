"""The wire protocol without I/O: the client's half and the server's half."""
