"""All that speaks to PostgreSQL: in threads, each job with a deadline, over few and reused sessions."""
