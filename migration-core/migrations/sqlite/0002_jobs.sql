-- The job queue: what backfills and cleanups have still to do, cut into chunks that workers lease.
-- Moments are milliseconds since 1970, by the clock of SQLite's process.

create table crossfade_job (
    id         integer primary key autoincrement,
    migration  integer not null references crossfade_migration (id),
    kind       text    not null check (kind in ('copy', 'cleanup')),
    state      text    not null check (state in ('running', 'paused', 'done', 'cancelled', 'failed')),
    requested  text    not null check (requested in ('run', 'pause', 'cancel')),
    epoch      integer not null,
    -- The folder that the chunks are in, as whoever made the job saw it.
    source     text    not null,
    -- What makes a folder the same one, wherever it is mounted.
    digest     text    not null,
    params     text    not null,
    error      text,
    created_at integer not null,
    updated_at integer not null
);
-- Two jobs of a kind on one migration would do each other's work twice.
create unique index crossfade_job_unfinished on crossfade_job (migration, kind) where state in ('running', 'paused');

create table crossfade_chunk (
    job         integer not null references crossfade_job (id) on delete cascade,
    number      integer not null,
    state       text    not null default 'open' check (state in ('open', 'leased', 'done', 'failed')),
    owner       text,
    lease_until integer,
    not_before  integer,
    attempts    integer not null default 0,
    keys        integer not null,
    keys_done   integer not null default 0,
    copied      integer not null default 0,
    repaired    integer not null default 0,
    removed     integer not null default 0,
    retired     integer not null default 0,
    kept        integer not null default 0,
    error       text,
    primary key (job, number)
);
create index crossfade_chunk_unfinished on crossfade_chunk (job, number) where state in ('open', 'leased');
