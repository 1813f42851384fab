"""One command for plant engineer, operator and auditor."""
