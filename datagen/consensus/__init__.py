"""Consensus races: candidate blocks of one mempool, and the votes, disputes and timeouts that decide between them."""
