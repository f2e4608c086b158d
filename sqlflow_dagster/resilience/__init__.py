"""A call to the outside → its answer, tried again, slowed and refused by one set of rules."""
