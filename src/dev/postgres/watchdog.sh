# sh -c <this> <name> <socket directory> <directory to remove, or empty> <postgres> <argument>…
# stdin: a pipe whose other end the owner holds; stdout: the directory's lock, to be held and
# passed on; stderr: the log.

# A signal to the whole session must not leave the server unwatched. Postgres sets its own handlers.
trap '' INT TERM HUP
exec 3<&0
sockets=$1
temporary=$2
shift 2

"$@" <&1 >&2 3<&- &
server=$!

# In a process of its own, so that the end of the server is seen as well. Repeats the signal: one
# that arrives before the server has set its handlers is lost. SIGINT: fast shutdown; SIGQUIT: at
# once, with recovery at the next start. Does not hold the lock.
{
    read -r _
    seconds=0
    while [ "$seconds" -lt 30 ] && kill -INT "$server"; do
        sleep 1
        seconds=$((seconds + 1))
        [ "$seconds" -lt 20 ] || kill -QUIT "$server"
    done
} <&3 >/dev/null 2>&1 3<&- &
reader=$!

wait "$server"
kill -KILL "$reader"
rm -rf "$sockets" ${temporary:+"$temporary"}
