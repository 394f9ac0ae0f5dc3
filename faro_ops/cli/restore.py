"""`faro restore`: give HPAs back the bounds that they had before `faro run --act ceilings`."""

from typing import Annotated

from faro_ops.cli.shared import option
from faro_ops.log import say


def restore(
    plan: Annotated[str, option("NAMESPACE/NAME of the controller's FaroPlan.")],
    namespaces: Annotated[
        list[str] | None,
        option("Another namespace to search, if you may not search all of them.", "--namespace"),
    ] = None,
    unled: Annotated[
        float, option("Only after watching for this many seconds that no controller leads.")
    ] = 0.0,
    force: Annotated[
        bool, option("Also restore bounds that someone else has changed since.", "--force")
    ] = False,
    kubeconfig: Annotated[
        str | None, option("kubeconfig file.", default="in a pod its ServiceAccount")
    ] = None,
    context: Annotated[str | None, option("kubeconfig context.", default="the current one")] = None,
) -> None:
    """Give HPAs their original bounds back. Stop the controller first.

    All namespaces are searched for HPAs whose bounds this controller has set, or, without the
    permission for that, the FaroPlan's and those given by --namespace. Bounds that someone else has
    changed since are left. The exit status is 2 if an HPA could not be restored.
    """
    from faro_ops.operate.kube import hpa_bounds
    from faro_ops.operate.kube.lease import seconds_unled
    from faro_ops.operate.kube.operate import NamespacedName
    from faro_ops.operate.kube.preflight import check_server

    home = NamespacedName.of(plan, kubeconfig, context)
    api = home.connect()
    check_server(api)
    if unled and seconds_unled(api, home.namespace, home.name, unled) < unled:
        say("a controller leads; nothing is restored")
        return
    hpas, unsearched = hpa_bounds.find(api, [home.namespace, *(namespaces or ())])
    restored = hpa_bounds.restore(api, hpas, plan, force)
    for outcome in [*unsearched, *restored]:
        say(str(outcome))
    if not restored:
        say("no autoscaler has bounds of Faro")
    failed = [one.place for one in [*unsearched, *restored] if one.failed]
    if failed:
        raise ValueError(f"not everything is restored: {', '.join(failed)} failed")
