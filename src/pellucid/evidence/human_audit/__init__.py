"""Human audits: people label samples that a seed draws, and the graders are held to them."""
