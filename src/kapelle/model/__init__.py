"""What we talk about: ids, enumerations, columnar blocks, orders and entries. No logic, no I/O."""
