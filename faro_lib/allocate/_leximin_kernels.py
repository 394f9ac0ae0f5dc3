"""Compiled loops of `leximin`, which maximises the least utility, then the second least, and so on.

A column is a replica count in the utility table. The search visits the utility levels from the
lowest to the highest. It raises the jobs at each level to their next better column. If the budget
cannot raise all of them, the search makes a node for the level, and as few jobs as possible stay at
this node. All other jobs are at node 0. The search assigns jobs to nodes at the least cost, which
is a transportation problem.

`node` (jobs,) is each job's node. `column` (nodes, jobs) is a job's column at each node, or -1 if
the job cannot be there. `members` are the jobs that can be at a node > 0. `last` is the largest
node number.
"""

import numpy as np
from numba import njit

FAR = 2**60  # more than any cost


@njit(cache=True)
def climb(utility, cost, following, order, budget, group, quota):
    """Raise as many jobs as possible at each utility level, from the lowest up, at the least cost.

    `order` lists flat positions in `utility` (jobs, columns), sorted by utility. It leaves out
    columns that are no better than a cheaper column of the same job. `following[j, x]` is job j's
    next column in `order` after x, or -1. The jobs of group g may use `quota[g]` of the budget.
    With several groups, the search stops at the first level whose jobs can each rise alone but not
    all together. Returns the replicas, which utilities are final, `node` and `column`.
    """
    jobs, columns = utility.shape
    node = np.zeros(jobs, np.int64)
    settled = np.zeros(jobs, np.bool_)
    members = np.empty(0, np.int64)
    column = np.full((8, jobs), -1, np.int64)
    for k in order[::-1]:  # each job starts at its worst column, which this loop visits last
        column[0, k // columns] = k % columns
    room = budget - (cost * column[0]).sum()
    group_room = quota.copy()
    for j in range(jobs):
        group_room[group[j]] -= cost[j] * column[0, j]
    last = 0
    stop = 0
    while stop < len(order):
        here = [0 for _ in range(0)]  # the jobs at this level; numba infers the type of the list
        more = 0  # what it costs to raise all of them
        of_group = np.zeros(len(quota), np.int64)  # the same by group
        level = utility[order[stop] // columns, order[stop] % columns]
        while stop < len(order) and utility[order[stop] // columns, order[stop] % columns] == level:
            j, x = order[stop] // columns, order[stop] % columns
            stop += 1
            if settled[j] or column[0, j] != x:
                continue
            step = cost[j] * (following[j, x] - x)
            if last == 0 and (following[j, x] < 0 or step > room or step > group_room[group[j]]):
                settled[j] = True
                continue
            here.append(j)
            more += step
            of_group[group[j]] += step
        if len(here) == 0:
            continue
        if last == 0 and more <= room and np.all(of_group <= group_room):
            room -= more
            group_room -= of_group
            for j in here:
                column[0, j] = following[j, column[0, j]]
            continue
        if len(quota) > 1:
            break
        last += 1
        if last == len(column):
            column = np.concatenate((column, np.full(column.shape, -1, np.int64)))
        column[last] = -1
        fresh = [j for j in here if not (column[1:last, j] >= 0).any()]
        members = np.concatenate((members, np.array(fresh, np.int64)))
        for j in here:
            column[last, j] = column[0, j]
            column[0, j] = following[j, column[0, j]]
            if node[j] == 0:
                node[j] = last
        while True:
            price, mover = _moves(column, node, members, cost, last)
            distance, path = _shortest(price, last)
            if distance > room:
                break
            room -= distance
            for i in range(len(path) - 1):
                node[mover[path[i], path[i + 1]]] = path[i + 1]
        last = _settle(column, node, settled, members, cost, last, price, room)
        members = np.array(
            [j for j in members if not settled[j] and (column[1 : last + 1, j] >= 0).any()],
            np.int64,
        )
    return np.array([column[node[j], j] for j in range(jobs)]), settled, node, column[: last + 1]


@njit(cache=True)
def _moves(column, node, members, cost, last):
    """The least added cost of moving a job from node a to b, `price[a, b]`, and `mover[a, b]`."""
    price = np.full((last + 1, last + 1), FAR)
    mover = np.full((last + 1, last + 1), -1)
    for j in members:
        a = node[j]
        for b in range(last + 1):
            if b != a and column[b, j] >= 0:
                more = cost[j] * (column[b, j] - column[a, j])
                if more < price[a, b]:
                    price[a, b], mover[a, b] = more, j
    return price, mover


@njit(cache=True)
def _shortest(price, source):
    """(distance, path) of the cheapest path from `source` to node 0, by Bellman and Ford.

    No cycle has a negative price.
    """
    nodes = len(price)
    distance = np.full(nodes, FAR)
    before = np.full(nodes, -1)
    distance[source] = 0
    for _ in range(nodes):
        for a in range(1, nodes):
            if distance[a] < FAR:
                for b in range(nodes):
                    if price[a, b] < FAR and distance[a] + price[a, b] < distance[b]:
                        distance[b], before[b] = distance[a] + price[a, b], a
    path = [0]
    while distance[0] < FAR and path[-1] != source:
        path.append(before[path[-1]])
    return distance[0], path[::-1]


@njit(cache=True)
def _settle(column, node, settled, members, cost, last, price, room):
    """Rule out unaffordable moves, settle jobs that cannot move, and delete empty nodes.

    Returns the new `last` node. Each node keeps its number of jobs. If a job moves from node a to
    node b, other moves must lead from b back to a. The job's move is ruled out if it and the
    cheapest moves back together cost more than `room`, the budget left.
    """
    for c in range(last + 1):
        price = np.minimum(price, price[:, c : c + 1] + price[c])
    for j in members:
        a = node[j]
        others = 0  # nodes to which the job can still move
        for b in range(last + 1):
            if b != a and column[b, j] >= 0:
                if cost[j] * (column[b, j] - column[a, j]) + price[b, a] > room:
                    column[b, j] = -1
                else:
                    others += 1
        if others == 0 and a > 0:
            settled[j] = True
            node[j] = 0
            column[0, j] = column[a, j]
            column[1 : last + 1, j] = -1
    for c in range(last, 0, -1):
        if not (node[members] == c).any():
            column[c] = column[last]
            node[node == last] = c
            last -= 1
    return last


@njit(cache=True)
def join(left, right):
    """The leximin-best sorted utilities of two sets of jobs together; row s is for the budget s."""
    rows, n = left.shape
    m = right.shape[1]
    out = np.empty((rows, n + m))
    for s in range(rows):
        best = 0
        for r in range(1, min(len(right), s + 1)):  # `right` gets r of the budget, `left` the rest
            if _better(left[s - r], right[r], left[s - best], right[best]):
                best = r
        out[s, :n] = left[s - best]
        out[s, n:] = right[best]
        out[s].sort()
    return out


@njit(cache=True)
def _better(left, right, other_left, other_right):
    """Whether `left` and `right` merged are leximin-better than the other two; all are sorted."""
    i = j = k = p = 0
    for _ in range(len(left) + len(right)):
        value, i, j = _next(left, i, right, j)
        other, k, p = _next(other_left, k, other_right, p)
        if value != other:
            return value > other
    return False


@njit(cache=True, inline="always")
def _next(left, i, right, j):
    """The least value of left[i:] and right[j:], and the positions i and j after it."""
    if j == len(right) or (i < len(left) and left[i] <= right[j]):
        return left[i], i + 1, j
    return right[j], i, j + 1
