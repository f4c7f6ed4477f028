"""The checks for other libraries' functions: one file per library, which alone imports it. None is imported here."""
