#!/bin/sh
# A database user of its own: LOGIN may do what ROLE may (clusterinfo_reader, clusterinfo_writer), and nothing else. Its
# password is new each time, and is in LOGIN_PASSWORD_FILE and nowhere else. May be run as often as one likes.
#
# Needs PGHOST, PGUSER and, in PASSWORD_FILE, that user's password; the user may create roles.
set -eu
PGPASSWORD=$(cat "$PASSWORD_FILE")
LOGIN_PASSWORD=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
export PGPASSWORD LOGIN_PASSWORD

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="${PGDATABASE:-postgres}" <<'SQL'
\getenv password LOGIN_PASSWORD
\getenv login LOGIN
\getenv role ROLE
select format('create role %I', name) from (values (:'role'), (:'login')) as wanted (name)
where not exists (select from pg_roles where rolname = name) \gexec
alter role :"login" login password :'password';
grant :"role" to :"login";
SQL
# As the migrations set it for clusterinfo_reader: settings are not inherited. And a dashboard that is left open must not
# keep the server busy.
if [ "$ROLE" = clusterinfo_reader ]; then
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="${PGDATABASE:-postgres}" <<'SQL'
\getenv login LOGIN
alter role :"login" set jit = off;
alter role :"login" set statement_timeout = '30s';
SQL
fi

printf %s "$LOGIN_PASSWORD" >"$LOGIN_PASSWORD_FILE.new"
# Who logs in runs as another user than this.
chmod 0444 "$LOGIN_PASSWORD_FILE.new"
mv -f "$LOGIN_PASSWORD_FILE.new" "$LOGIN_PASSWORD_FILE"
