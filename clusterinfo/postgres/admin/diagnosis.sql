-- What `clusterinfo doctor` asks. Nothing here writes.

-- name: lacking_rights
-- What a writer needs in schema $1 and this user lacks, a line each.
select 'temporary tables' as lacking where not has_database_privilege(current_database(), 'temporary')
union all
select format('%s on %s', string_agg(wanted, ', ' order by wanted), relname)
from pg_class, unnest(array['select', 'insert', 'update', 'delete']) as wanted
where relnamespace = $1::text::regnamespace and relkind in ('r', 'p') and not relispartition
    and not (relname = 'schema_migration' and wanted <> 'select') and not has_table_privilege(oid, wanted)
group by relname
order by 1;
