-- Who may do what: a role that stores, a role that reads, and two functions by which the one that stores, which may create
-- nothing, keeps the history.

-- Roles belong to the server, not to the database: another database may have made them already, or be making them now; and
-- whoever migrates may lack the right to make one.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['clusterinfo_writer', 'clusterinfo_reader'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
                if wanted = 'clusterinfo_reader' then
                    -- The planner overrates the short lists in an object and compiles: select * from pods, 10,000 of them,
                    -- takes 2.5 s instead of 0.7 s. Holds for whoever logs in as this role; others may set it for themselves.
                    execute format('alter role %I set jit = off', wanted);
                end if;
            exception
                when duplicate_object or unique_violation then
                    null;  -- made by another database meanwhile
                when insufficient_privilege then
                    raise warning 'no right to create the role %: have it created, then run `clusterinfo migrate '
                        '--print-grants` for schema % and what it prints', wanted, current_schema();
            end;
        end if;
    end loop;
end
$$;

-- What both roles may do with what there is now and later, as far as they are there. What a stranger's message held
-- (dead_letter, the hashes in dropped_letter, resource.original) is no reader's: neither by the tables, nor by the partitions
-- of the history.
do $$
begin
    execute format($f$
        create or replace function grant_rights() returns void
            language plpgsql set search_path = pg_catalog, %1$I, pg_temp as $body$
        declare
            relation record;
        begin
            if exists (select from pg_roles where rolname = 'clusterinfo_writer') then
                grant usage on schema %1$I to clusterinfo_writer;
                grant select, insert, update, delete on all tables in schema %1$I to clusterinfo_writer;
                if to_regclass('%1$I.schema_migration') is not null then
                    revoke insert, update, delete on %1$I.schema_migration from clusterinfo_writer;
                end if;
                grant execute on all functions in schema %1$I to clusterinfo_writer;
                revoke execute on function grant_rights() from clusterinfo_writer;
                alter default privileges in schema %1$I grant select, insert, update, delete on tables to clusterinfo_writer;
                alter default privileges in schema %1$I grant execute on functions to clusterinfo_writer;
            end if;
            if exists (select from pg_roles where rolname = 'clusterinfo_reader') then
                grant usage on schema %1$I to clusterinfo_reader;
                grant select on all tables in schema %1$I to clusterinfo_reader;
                for relation in
                    select c.oid::regclass as name, string_agg(quote_ident(a.attname), ', ') filter (
                        where a.attname <> 'original' and c.relname not in ('dead_letter', 'dropped_letter')
                            and not c.relispartition) as columns
                    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                    where c.relnamespace = '%1$I'::regnamespace and c.relkind in ('r', 'p')
                    group by c.oid
                    having c.relname in ('dead_letter', 'dropped_letter') or bool_or(a.attname = 'original')
                loop
                    execute format('revoke select on %%s from clusterinfo_reader', relation.name);
                    if relation.columns is not null then
                        execute format('grant select (%%s) on %%s to clusterinfo_reader', relation.columns, relation.name);
                    end if;
                end loop;
                grant execute on all functions in schema %1$I to clusterinfo_reader;
                revoke execute on function grant_rights() from clusterinfo_reader;
                if to_regprocedure('%1$I.make_history_month(date)') is not null then
                    revoke execute on function make_history_month(date), drop_history_month(date) from clusterinfo_reader;
                end if;
                alter default privileges in schema %1$I grant select on tables to clusterinfo_reader;
                alter default privileges in schema %1$I grant execute on functions to clusterinfo_reader;
            end if;
        end
        $body$
    $f$, current_schema());
    revoke execute on function grant_rights() from public;
    perform grant_rights();
end
$$;
comment on function grant_rights is 'Give clusterinfo_writer and clusterinfo_reader their rights, as far as they exist. For the owner.';

-- The months of the history for a role that may write but not create: the two functions run as their owner. They take a
-- month and nothing else, so that they can make or drop no other table. pg_temp last: no temporary table of
-- the caller's is taken for one of ours (manual, "Writing SECURITY DEFINER Functions Safely").
do $$
begin
    execute format($f$
        create function make_history_month(month date) returns void
            language plpgsql security definer set search_path = pg_catalog, %1$I, pg_temp as $body$
        begin
            execute format(
                'create table %1$I.%%I partition of %1$I.resource_history for values from (%%L) to (%%L)',
                'resource_history_' || to_char(month, 'YYYY_MM'),
                to_char(month, 'YYYY-MM-01"T00:00Z"'),
                to_char(month + interval '1 month', 'YYYY-MM-01"T00:00Z"'));
            if exists (select from pg_roles where rolname = 'clusterinfo_reader') then
                -- By the table it is a part of, without `original`.
                execute format(
                    'revoke all on %1$I.%%I from clusterinfo_reader', 'resource_history_' || to_char(month, 'YYYY_MM'));
            end if;
        end
        $body$
    $f$, current_schema());
    execute format($f$
        create function drop_history_month(month date) returns void
            language plpgsql security definer set search_path = pg_catalog, %1$I, pg_temp as $body$
        begin
            execute format('drop table if exists %1$I.%%I', 'resource_history_' || to_char(month, 'YYYY_MM'));
        end
        $body$
    $f$, current_schema());
    revoke execute on function make_history_month(date), drop_history_month(date) from public;
    if exists (select from pg_roles where rolname = 'clusterinfo_reader') then
        revoke execute on function make_history_month(date), drop_history_month(date) from clusterinfo_reader;
    end if;
end
$$;
comment on function make_history_month is 'Make the partition of resource_history for the month that a day lies in.';
comment on function drop_history_month is 'Drop the partition of resource_history for the month that a day lies in.';
