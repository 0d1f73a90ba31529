-- After a recreate for another user, the other chain still has a pair of the former one: that the new pair is another user's is seen by the
-- chain's own pair, not by the token's subject, which the recreate has changed.
alter table chains add column subject text;
comment on column chains.subject is 'JFrog''s sub of its pair, as the answer said; null: of before this was kept, or not said: the token''s';
