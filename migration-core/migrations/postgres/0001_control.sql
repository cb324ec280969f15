-- What crossfade keeps for itself. The schema is created by the migrator before this runs.

create table crossfade.migration (
    id          integer generated always as identity primary key,
    name        text        not null unique,
    manifest    text        not null,
    fingerprint text        not null,
    phase       text        not null,
    ramp_ppm    integer     not null check (ramp_ppm between 0 and 1000000),
    epoch       bigint      not null,
    changed_at  timestamptz not null default clock_timestamp()
);

-- Only ever added to.
create table crossfade.audit (
    id            bigint generated always as identity primary key,
    migration     integer     not null references crossfade.migration,
    at            timestamptz not null default clock_timestamp(),
    from_phase    text,
    from_ramp_ppm integer,
    from_epoch    bigint,
    to_phase      text        not null,
    to_ramp_ppm   integer     not null,
    to_epoch      bigint      not null,
    actor         text        not null,
    reason        text,
    forced        boolean     not null,
    evidence      jsonb       not null,
    pause_us      bigint      not null
);
create index audit_by_migration on crossfade.audit (migration, id);

-- Only ever added to.
create table crossfade.evidence (
    id        bigint generated always as identity primary key,
    migration integer     not null references crossfade.migration,
    kind      text        not null,
    epoch     bigint      not null,
    phase     text        not null,
    faults    bigint      not null,
    began_at  timestamptz not null,
    details   jsonb       not null
);
create index evidence_by_migration on crossfade.evidence (migration, kind, epoch, id);

create table crossfade.instance (
    migration   integer     not null references crossfade.migration,
    name        text        not null,
    adopted     bigint      not null,
    lease_until timestamptz not null,
    primary key (migration, name)
);

create table crossfade.old_path (
    migration    integer     not null references crossfade.migration,
    epoch        bigint      not null,
    last_used_at timestamptz not null,
    primary key (migration, epoch)
);

create table crossfade.tally (
    migration  integer not null references crossfade.migration,
    epoch      bigint  not null,
    instance   text    not null,
    experiment text    not null,
    totals     jsonb   not null,
    primary key (migration, epoch, instance, experiment)
);

create table crossfade.mismatch (
    id          bigint generated always as identity primary key,
    migration   integer     not null references crossfade.migration,
    at          timestamptz not null default clock_timestamp(),
    epoch       bigint      not null,
    experiment  text        not null,
    key         text        not null,
    differences jsonb       not null
);
create index mismatch_by_migration on crossfade.mismatch (migration, id);

-- Takes the migration's fence shared until the transaction ends, then reads where it stands.
--
-- It must be volatile: each statement inside then has a snapshot of its own, taken after the lock
-- was granted. A phase read in the same statement as the lock would be older than the wait.
--
-- An advisory lock queues fairly; a share lock on the row would starve the change of phase. Above
-- read committed the whole transaction's snapshot may be older than the wait, so the row is locked
-- as well, which fails with 40001 if it has changed since the snapshot.
create function crossfade.fence(
    _migration integer, _epoch bigint,
    out phase text, out ramp_ppm integer, out epoch bigint
)
language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock_shared(1668834915, _migration);
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        select m.phase, m.ramp_ppm, m.epoch into phase, ramp_ppm, epoch
        from crossfade.migration m where m.id = _migration for share;
    else
        select m.phase, m.ramp_ppm, m.epoch into phase, ramp_ppm, epoch
        from crossfade.migration m where m.id = _migration;
    end if;
    if epoch is null then
        raise exception 'crossfade: there is no migration %', _migration using errcode = 'CF002';
    end if;
    if epoch <> _epoch then
        -- The detail is read by the client: keep it the bare number.
        raise exception 'crossfade: migration % has moved from epoch % to %', _migration, _epoch, epoch
            using errcode = 'CF001', detail = epoch::text;
    end if;
end
$$;
