"""Attacks on what shows what left a site: the ledger, the gate, the witness; see benchmarks.attacks_audit."""
