-- The job queue: what backfills and cleanups have still to do, cut into chunks that workers lease.

create table crossfade.job (
    id         bigint generated always as identity primary key,
    migration  integer     not null references crossfade.migration,
    kind       text        not null check (kind in ('copy', 'cleanup')),
    state      text        not null check (state in ('running', 'paused', 'done', 'cancelled', 'failed')),
    requested  text        not null check (requested in ('run', 'pause', 'cancel')),
    epoch      bigint      not null,
    -- The folder that the chunks are in, as whoever made the job saw it.
    source     text        not null,
    -- What makes a folder the same one, wherever it is mounted.
    digest     text        not null,
    params     jsonb       not null,
    error      text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
-- Two jobs of a kind on one migration would do each other's work twice.
create unique index job_unfinished on crossfade.job (migration, kind) where state in ('running', 'paused');

create table crossfade.chunk (
    job         bigint  not null references crossfade.job on delete cascade,
    number      integer not null,
    state       text    not null default 'open' check (state in ('open', 'leased', 'done', 'failed')),
    owner       text,
    lease_until timestamptz,
    not_before  timestamptz,
    attempts    integer not null default 0,
    keys        bigint  not null,
    keys_done   bigint  not null default 0,
    copied      bigint  not null default 0,
    repaired    bigint  not null default 0,
    removed     bigint  not null default 0,
    retired     bigint  not null default 0,
    kept        bigint  not null default 0,
    error       text,
    primary key (job, number)
);
create index chunk_unfinished on crossfade.chunk (job, number) where state in ('open', 'leased');
