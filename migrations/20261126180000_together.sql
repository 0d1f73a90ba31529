-- Refreshes of a team begin and are committed together.
--
-- Rows of tokens are found by their ids, with their team as a check. As an operator that check may serve to find them, too, and while
-- tables are empty it looks as good as any: plans that were made then read all of a team. As a function it serves as a check alone;
-- statements that want a whole team say so themselves.
alter policy tokens_own on tokens using (uuid_eq(team_id, (select current_team())));
alter policy chains_own on chains using (uuid_eq(team_id, (select current_team())));
alter policy attempts_own on attempts using (uuid_eq(team_id, (select current_team())));

-- The token's own keys say the same: an attempt goes with its token, and a token with neither team nor chains does not exist. To ask
-- again locked the team's row for each attempt.
alter table attempts drop constraint attempts_team_fkey, drop constraint attempts_chain_fkey;

-- Sealed bytes cannot be compressed: it is not tried.
alter table chains
    alter column access_token set storage external,
    alter column refresh_token set storage external,
    alter column reference_token set storage external,
    alter column replaced_access_token set storage external;
