"""Pacemaker as the engine: its configuration (`cib`), its scheduler (`simulation`), its tools (`tools`)."""
