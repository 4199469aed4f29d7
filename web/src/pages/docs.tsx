// The documentation of exactly this version.
import { Link, useParams } from "@tanstack/react-router";
import { marked } from "marked";
import { useMemo } from "react";
import { ApiProblem, base, useApi } from "../api/client";
import { NotFound } from "../shell";
import { Loaded, Page, Panel } from "../ui/parts";

export function Docs() {
  const topics = useApi("/api/v1/docs");
  return (
    <Page title="Documentation" sub="Of exactly this version; nothing is loaded from elsewhere.">
      <Loaded query={topics}>
        {(data) => {
          const groups = new Map<string, typeof data.items>();
          for (const one of data.items) {
            const group = one.topic.includes("/") ? (one.topic.split("/")[0] ?? "") : "first";
            groups.set(group, [...(groups.get(group) ?? []), one]);
          }
          const titles: Record<string, string> = { first: "Begin here", concepts: "Concepts", guides: "Guides", migrate: "Coming from elsewhere", reference: "Reference" };
          return <div className="columns even">{["first", "concepts", "guides", "migrate", "reference"].map((group) => groups.has(group) ? <Panel key={group} title={titles[group]}><ul style={{ margin: 0, paddingLeft: 16 }}>{groups.get(group)?.map((one) => <li key={one.topic}><Link to="/docs/$topic" params={{ topic: one.topic.replaceAll("/", "~") }}>{one.title}</Link></li>)}</ul></Panel> : null)}</div>;
        }}
      </Loaded>
    </Page>
  );
}

/** Addresses within the documentation are those of its files; here they are pages. */
function resolve(topic: string, href: string): string {
  if (/^[a-z]+:/.test(href) || href.startsWith("#")) return href;
  const [path = "", hash] = href.split("#");
  const parts = topic.split("/").slice(0, -1);
  for (const part of path.replace(/\.md$/, "").split("/")) {
    if (part === "..") parts.pop();
    else if (part && part !== ".") parts.push(part);
  }
  return `${base}/docs/${parts.join("~")}${hash ? `#${hash}` : ""}`;
}

export function Doc() {
  const { topic = "" } = useParams({ strict: false }) as { topic?: string };
  const doc = useApi("/api/v1/docs/{topic}", { topic });
  const html = useMemo(() => {
    if (!doc.data) return "";
    const own = doc.data.topic;
    const text = doc.data.markdown.replace(/^# .*\n/, "");
    const html = marked.parse(text, { async: false, walkTokens: (token) => { if (token.type === "link") token["href"] = resolve(own, String(token["href"])); } });
    // What may be wider than the page can be reached by keyboard.
    return html.replaceAll("<pre>", '<pre tabindex="0">').replaceAll("<table>", '<div class="scroll" tabindex="0"><table>').replaceAll("</table>", "</table></div>");
  }, [doc.data]);
  if (doc.error instanceof ApiProblem && doc.error.status === 404) return <NotFound what={`page ${topic.replaceAll("~", "/")} of the documentation`} />;
  return (
    <Page title={doc.data?.title ?? "Documentation"} sub={<Link to="/docs">All pages</Link>}>
      <Loaded query={doc}>{() => <div className="prose" dangerouslySetInnerHTML={{ __html: html }} />}</Loaded>
    </Page>
  );
}
