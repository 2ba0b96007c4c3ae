"""What is made small: the divergence from the sequential teacher's next-token distributions."""
