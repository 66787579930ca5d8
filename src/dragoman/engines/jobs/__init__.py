"""Jobs as processes: what keeps one apart from the machine (isolation), its start, adoption and end (launch). Used by serving/jobs."""
