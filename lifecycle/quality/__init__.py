"""What a row must be before anything downstream sees it. Nothing else imports Great Expectations."""
