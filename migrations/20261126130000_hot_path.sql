-- What every refresh runs, in the form that Postgres runs fastest: a function in SQL that is not inlined is planned at each call.
create or replace function protected_for(reuse_for integer, refreshed_at timestamptz, expires_at timestamptz) returns double precision
language sql immutable as
$$ select effective_reuse_for(reuse_for, refreshed_at, expires_at)
          + least(15, effective_reuse_for(reuse_for, refreshed_at, expires_at) / 10) $$;

create or replace function sealed_by(sealed bytea) returns uuid language plpgsql immutable strict parallel safe as
$$ begin
    return case when length(sealed) > 38 and substring(sealed from 1 for 2) = '\x0124'
               and encode(substring(sealed from 3 for 36), 'escape') ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
               then encode(substring(sealed from 3 for 36), 'escape')::uuid end;
end $$;

create or replace function user_refused_at(of_instance text, of_subject text) returns timestamptz
language plpgsql stable security definer as
$$ begin
    return (select max(t.last_error_at) from tokens t
            where t.instance = of_instance and t.subject = of_subject and t.last_error_kind = 'jfrog-unauthenticated');
end $$;
do $$ begin
    -- Replacing it forgot it.
    execute format('alter function user_refused_at(text, text) set search_path = %I, pg_temp', current_schema());
end $$;

create or replace function sealed_by_open_key() returns trigger language plpgsql as
$$ declare written bytea[]; had bytea[] := '{}'; value bytea; key uuid; seen uuid;
begin
    if tg_table_name = 'chains' then
        written := array[new.access_token, new.refresh_token, new.reference_token, new.replaced_access_token];
        if tg_op = 'UPDATE' then had := array[old.access_token, old.refresh_token, old.reference_token, old.replaced_access_token]; end if;
    elsif tg_table_name = 'tokens' then
        written := array[new.identity_token];
        if tg_op = 'UPDATE' then had := array[old.identity_token]; end if;
    else
        written := array[new.target];
        if tg_op = 'UPDATE' then had := array[old.target]; end if;
    end if;
    foreach value in array written loop
        key := sealed_by(value);
        -- What the row had already may move within it.
        continue when key is null or key = seen or coalesce(value = any (had), false);
        -- The lock waits for who is just closing it.
        perform from data_keys d where d.id = key and d.team_id = new.team_id and d.closed_at is null for share;
        if not found then
            raise exception 'data key % is closed', key using errcode = 'foreign_key_violation', constraint = 'sealed_by_open_key';
        end if;
        seen := key;
    end loop;
    return new;
end $$;

-- A statement is planned before it has named its team. Seen through a function, the team is null by then, and an index on it seems to
-- find nothing and to cost nothing: rows that have an id were found by reading all of the team's. Behind a subquery it is not known.
do $$
declare wall record;
begin
    for wall in select tablename, policyname, qual from pg_policies
                where schemaname = current_schema() and qual ~ 'current_team\(\)|is_platform\(\)' loop
        execute format('alter policy %I on %I using (%s)', wall.policyname, wall.tablename,
                       regexp_replace(wall.qual, '(current_team|is_platform)\(\)', '(select \1())', 'g'));
    end loop;
end $$;
