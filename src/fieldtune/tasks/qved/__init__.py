"""Exercise films and what a coach says of them: QEVD's labels, or rendered films with labels in its form."""
