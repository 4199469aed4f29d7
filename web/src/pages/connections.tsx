// The outside systems that the project knows.
import { useApi } from "../api/client";
import { Code, Empty, Loaded, Page, count, plural, Scroll } from "../ui/parts";

export function Connections() {
  const connections = useApi("/api/v1/connections");
  return (
    <Page title="Connections" sub={connections.data ? plural(connections.data.items.length, "connection") : undefined}>
      <Loaded query={connections}>
        {(data) => data.items.length === 0 ? <Empty title="No connections" text="A connection is one outside system, declared in subak.yml." doc={{ topic: "reference/connectors", label: "What can be connected" }} /> : (
          <div className="panel"><Scroll><table><thead><tr><th>Name</th><th>Type</th><th>Used as</th><th className="right">Assets</th><th className="right">Steps at a time</th></tr></thead><tbody>{data.items.map((one) => <tr key={one.name}><td>{one.name}</td><td className="mono">{one.kind}</td><td className="muted">{one.is_warehouse ? "warehouse" : ""}</td><td className="right">{count(one.asset_count)}</td><td className="right">{one.parallel ?? "no bound"}</td></tr>)}</tbody></table></Scroll></div>
        )}
      </Loaded>
      <p className="muted">Whether each of them can be reached, and what to do where not:</p>
      <Code text="subak doctor" />
    </Page>
  );
}
