"""A teacher's predictions and what is learnt from them: divergences, stored teachers, losses."""
