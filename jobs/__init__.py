"""What happens, in order. One job is one file, one function, one command; `cli` turns words into their arguments."""
