"""How characters of each family come about from random numbers."""
