#!/bin/sh
# The database user `grafana`: may read what clusterinfo_reader may, and nothing else. Its password is new each time,
# and is in READER_PASSWORD_FILE and nowhere else. May be run as often as one likes.
#
# Needs PGHOST, PGUSER and, in PASSWORD_FILE, that user's password; the user may create roles.
set -eu
PGPASSWORD=$(cat "$PASSWORD_FILE")
READER_PASSWORD=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
export PGPASSWORD READER_PASSWORD

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="${PGDATABASE:-postgres}" <<'SQL'
\getenv password READER_PASSWORD
select 'create role ' || name from (values ('clusterinfo_reader'), ('grafana')) as wanted (name)
where not exists (select from pg_roles where rolname = name) \gexec
alter role grafana login password :'password';
-- As the migrations set it for clusterinfo_reader: settings are not inherited.
alter role grafana set jit = off;
-- A dashboard that is left open must not keep the server busy.
alter role grafana set statement_timeout = '30s';
grant clusterinfo_reader to grafana;
SQL

printf %s "$READER_PASSWORD" >"$READER_PASSWORD_FILE.new"
# Grafana runs as another user.
chmod 0444 "$READER_PASSWORD_FILE.new"
mv -f "$READER_PASSWORD_FILE.new" "$READER_PASSWORD_FILE"
