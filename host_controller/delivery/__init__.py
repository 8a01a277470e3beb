"""The agent brought into running guests: one file, the plan of a push, and what the guest is told to run."""
