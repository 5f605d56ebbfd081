"""The calls of AuthService by topic; services.auth.servicer joins them."""
