"""Application services: what their registration files say. Spec: application service API, "Registration"."""
