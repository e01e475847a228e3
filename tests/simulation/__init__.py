"""The real engine under a seeded schedule of faults: one seed is one schedule. See docs/proof.md."""
