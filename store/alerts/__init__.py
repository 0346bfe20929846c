"""Alert definitions, their changes and history, exclusions, and the visits that a change asks for."""
