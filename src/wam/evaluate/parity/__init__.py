"""Parity: are our numbers those of the released code? Golden cases, compared tensor by tensor (`wam parity`)."""
