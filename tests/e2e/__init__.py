"""The real command in a real process, over real sockets, with independent clients."""
