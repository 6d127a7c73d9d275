"""What runs inside the jail: standard library only, no import of pellucid."""
