-- What closing a batch of the audit costs, in the form that Postgres runs fastest: a function in SQL gives its rows back one at a time, and
-- is planned at each call. And a list of digests does not get shorter by being compressed.
create or replace function audit_rows(first_id bigint, upto bigint, page integer) returns table (id bigint, fields text[])
language plpgsql stable security definer as
$$ begin
    return query
        select a.id, array[a.at::text, a.team_id::text, a.actor, a.recognised_by::text, a.action, a.outcome, a.reason, a.token_id::text,
                           a.token_name, a.jfrog_token_id, a.fingerprint, a.generation::text, a.request_id, a.address, a.detail::text]
        from audit_events a where a.id >= first_id and a.id <= upto order by a.id limit page;
end $$;
do $$ begin
    -- Replacing it forgot them.
    execute format('alter function audit_rows(bigint, bigint, integer) set search_path = %I, pg_temp', current_schema());
    alter function audit_rows(bigint, bigint, integer) set timezone = 'UTC';
    alter function audit_rows(bigint, bigint, integer) set datestyle = 'ISO, YMD';
end $$;
alter table audit_batches alter column rows set storage external;
