// The graph of assets. It is laid out on the server; here only what is seen is drawn, in as much detail as can be read.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { type Schemas, useApi } from "../api/client";
import { Empty, Loaded, Page, Status, plural, toneOf } from "../ui/parts";

type View = { x: number; y: number; scale: number };

export function Lineage() {
  const search = useSearch({ strict: false }) as { select?: string; focus?: string; depth?: string };
  const navigate = useNavigate();
  const [text, setText] = useState(search.select ?? "");
  const lineage = useApi("/api/v1/lineage", {}, { select: search.select, focus: search.focus, depth: search.depth }, { keep: true });
  return (
    <Page title={search.focus ? `Lineage of ${search.focus}` : "Lineage"} sub={lineage.data ? `${plural(lineage.data.nodes.length, "asset")}, ${plural(lineage.data.edge_count, "edge")}` : undefined} actions={search.focus ? <><Link className="button" to="/assets/$asset" params={{ asset: search.focus }}>The asset</Link><Link className="button" to="/lineage" search={{}}>All assets</Link></> : null}>
      <form className="row" onSubmit={(event) => { event.preventDefault(); void navigate({ to: "/lineage", search: { ...search, select: text || undefined } }); }}>
        <input type="search" className="input mono" style={{ maxWidth: 420 }} value={text} onChange={(event) => setText(event.target.value)} placeholder="+gold.sales   tag:daily   silver.*" aria-label="Selection" />
        <button type="submit" className="button">Show</button>
        {search.focus ? <label className="row">Steps <select className="input" style={{ width: "auto" }} value={search.depth ?? ""} onChange={(event) => void navigate({ to: "/lineage", search: { ...search, depth: event.target.value || undefined } })}><option value="1">1</option><option value="2">2</option><option value="4">4</option><option value="">all</option></select></label> : null}
      </form>
      <Loaded query={lineage} rows={10}>
        {(data) => data.nodes.length === 0 ? <Empty title="Nothing to draw" text="There are no assets yet, or none is like that." action={<Link className="button primary" to="/lineage" search={{}}>Show all</Link>} doc={{ topic: "concepts/selection", label: "How to select" }} /> : <Graph key={`${search.select ?? ""} ${search.focus ?? ""} ${search.depth ?? ""} ${data.nodes.length}`} data={data} focus={search.focus} />}
      </Loaded>
    </Page>
  );
}

const decode = (text: string) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

const LEGEND = ["failed", "late", "missing", "stale", "fresh", "external"];

function Graph({ data, focus }: { data: Schemas["LineageView"]; focus: string | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const navigate = useNavigate();
  const places = useMemo(() => new Float32Array(decode(data.places)), [data.places]);
  const edges = useMemo(() => new Uint32Array(decode(data.edges)), [data.edges]);
  const near = useMemo(() => {
    const before: number[][] = data.nodes.map(() => []);
    const after: number[][] = data.nodes.map(() => []);
    for (let at = 0; at < edges.length; at += 2) {
      after[edges[at] ?? 0]?.push(edges[at + 1] ?? 0);
      before[edges[at + 1] ?? 0]?.push(edges[at] ?? 0);
    }
    return { before, after };
  }, [edges, data.nodes]);
  const view = useRef<View>({ x: 0, y: 0, scale: 1 });
  const [chosen, setChosen] = useState<number>(() => Math.max(0, data.nodes.findIndex((node) => node.asset === focus)));
  const hovered = useRef<number>(-1);
  const frame = useRef(0);

  const draw = useCallback(() => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => {
      const element = canvas.current;
      const context = element?.getContext("2d");
      if (!element || !context) return;
      const ratio = window.devicePixelRatio || 1;
      const { clientWidth: width, clientHeight: height } = element;
      if (element.width !== width * ratio || element.height !== height * ratio) {
        element.width = width * ratio;
        element.height = height * ratio;
      }
      const style = getComputedStyle(element);
      const colour = (name: string) => style.getPropertyValue(name).trim();
      const { x, y, scale } = view.current;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
      const [left, top, right, bottom] = [-x / scale, -y / scale, (width - x) / scale, (height - y) / scale];
      const w = data.node_width;
      const h = data.node_height;
      const at = hovered.current >= 0 ? hovered.current : chosen;
      const lit = new Set<number>([at, ...(near.before[at] ?? []), ...(near.after[at] ?? [])]);
      context.lineWidth = 1.25 / Math.min(1, Math.max(scale, 0.3));
      context.strokeStyle = colour("--strong");
      context.globalAlpha = scale < 0.25 ? 0.25 : 0.5;
      context.beginPath();
      const curve = (from: number, to: number) => {
        const [x1, y1, x2, y2] = [(places[2 * from] ?? 0) + w, (places[2 * from + 1] ?? 0) + h / 2, places[2 * to] ?? 0, (places[2 * to + 1] ?? 0) + h / 2];
        if (Math.max(x1, x2) < left || Math.min(x1, x2) > right || Math.max(y1, y2) < top || Math.min(y1, y2) > bottom) return;
        const bend = Math.max(24, (x2 - x1) / 2);
        context.moveTo(x1, y1);
        context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      };
      for (let edge = 0; edge < edges.length; edge += 2) curve(edges[edge] ?? 0, edges[edge + 1] ?? 0);
      context.stroke();
      context.globalAlpha = 1;
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2 / Math.min(1, Math.max(scale, 0.3));
      context.beginPath();
      for (const other of near.before[at] ?? []) curve(other, at);
      for (const other of near.after[at] ?? []) curve(at, other);
      context.stroke();
      const surface = colour("--surface");
      const border = colour("--border");
      const word = colour("--text");
      const muted = colour("--muted");
      const tones = new Map<string, string>();
      const toneColour = (status: string) => {
        const known = tones.get(status);
        if (known) return known;
        const tone = toneOf(status);
        const found = colour(`--${{ good: "good", bad: "bad", run: "run", warn: "warn", stale: "stale", idle: "idle", skip: "idle", missing: "idle" }[tone]}`);
        tones.set(status, found);
        return found;
      };
      const isFar = scale < 0.25;
      const isNear = scale > 0.6;
      context.textBaseline = "middle";
      for (let node = 0; node < data.nodes.length; node += 1) {
        const nx = places[2 * node] ?? 0;
        const ny = places[2 * node + 1] ?? 0;
        if (nx + w < left || nx > right || ny + h < top || ny > bottom) continue;
        const own = data.nodes[node];
        if (!own) continue;
        const tone = toneColour(own.status);
        if (isFar) {
          context.fillStyle = tone;
          context.fillRect(nx, ny, w, h);
          continue;
        }
        context.fillStyle = surface;
        context.fillRect(nx, ny, w, h);
        context.strokeStyle = node === chosen ? colour("--accent") : lit.has(node) ? muted : border;
        context.lineWidth = (node === chosen ? 2 : 1) / Math.max(scale, 0.5);
        context.strokeRect(nx, ny, w, h);
        context.fillStyle = tone;
        context.fillRect(nx, ny, isNear ? 4 : 10, h);
        // Never smaller than can be read.
        const size = Math.max(13, 8.5 / scale);
        context.font = `600 ${size}px system-ui, sans-serif`;
        context.fillStyle = word;
        const name = fit(context, own.asset, w - 20);
        context.fillText(name, nx + 14, isNear ? ny + 19 : ny + h / 2);
        if (isNear) {
          context.font = "11px system-ui, sans-serif";
          context.fillStyle = muted;
          const checks = own.check_count > 0 ? ` · ${own.checks_passed} of ${own.check_count} checks` : "";
          context.fillText(fit(context, `${own.kind} · ${own.status}${checks}`, w - 20), nx + 14, ny + 39);
        }
      }
    });
  }, [data, places, edges, near, chosen]);

  const fitAll = useCallback(() => {
    const element = canvas.current;
    if (!element) return;
    const scale = Math.min(1, (element.clientWidth - 48) / Math.max(1, data.width), (element.clientHeight - 48) / Math.max(1, data.height));
    view.current = { scale, x: (element.clientWidth - data.width * scale) / 2, y: (element.clientHeight - data.height * scale) / 2 };
    draw();
  }, [data.width, data.height, draw]);

  const centre = useCallback((node: number) => {
    const element = canvas.current;
    if (!element) return;
    const scale = Math.max(view.current.scale, 0.7);
    view.current = { scale, x: element.clientWidth / 2 - ((places[2 * node] ?? 0) + data.node_width / 2) * scale, y: element.clientHeight / 2 - ((places[2 * node + 1] ?? 0) + data.node_height / 2) * scale };
    draw();
  }, [data, places, draw]);

  const shape = `${data.width} ${data.height} ${data.nodes.length}`;
  useEffect(() => fitAll(), [shape]);
  useEffect(() => {
    draw();
    const watch = new ResizeObserver(draw);
    if (canvas.current) watch.observe(canvas.current);
    const theme = new MutationObserver(draw);
    theme.observe(document.documentElement, { attributes: true });
    return () => {
      watch.disconnect();
      theme.disconnect();
    };
  }, [draw]);

  const zoom = useCallback((factor: number, cx?: number, cy?: number) => {
    const element = canvas.current;
    if (!element) return;
    const [px, py] = [cx ?? element.clientWidth / 2, cy ?? element.clientHeight / 2];
    const { x, y, scale } = view.current;
    const next = Math.min(2, Math.max(0.02, scale * factor));
    view.current = { scale: next, x: px - ((px - x) * next) / scale, y: py - ((py - y) * next) / scale };
    draw();
  }, [draw]);

  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, [zoom]);

  const find = (px: number, py: number): number => {
    const { x, y, scale } = view.current;
    const [gx, gy] = [(px - x) / scale, (py - y) / scale];
    for (let node = 0; node < data.nodes.length; node += 1) {
      const nx = places[2 * node] ?? 0;
      const ny = places[2 * node + 1] ?? 0;
      if (gx >= nx && gx <= nx + data.node_width && gy >= ny && gy <= ny + data.node_height) return node;
    }
    return -1;
  };
  const drag = useRef<{ x: number; y: number; moved: boolean } | undefined>(undefined);
  const open = (node: number) => {
    const asset = data.nodes[node]?.asset;
    if (asset) void navigate({ to: "/assets/$asset", params: { asset } });
  };
  /** Walks along edges; up and down among those that stand beside each other. */
  const walk = (key: string) => {
    const list = key === "ArrowRight" ? near.after[chosen] : key === "ArrowLeft" ? near.before[chosen] : undefined;
    let next = list?.[0];
    if (key === "ArrowUp" || key === "ArrowDown") {
      const [x, y] = [places[2 * chosen] ?? 0, places[2 * chosen + 1] ?? 0];
      let best = Number.POSITIVE_INFINITY;
      for (let node = 0; node < data.nodes.length; node += 1) {
        const apart = ((places[2 * node + 1] ?? 0) - y) * (key === "ArrowDown" ? 1 : -1);
        if (node !== chosen && Math.abs((places[2 * node] ?? 0) - x) < 1 && apart > 0 && apart < best) {
          best = apart;
          next = node;
        }
      }
    }
    if (next !== undefined) {
      setChosen(next);
      centre(next);
    }
  };
  const own = data.nodes[chosen];
  return (
    <>
      <div className="graph">
        <canvas
          ref={canvas} tabIndex={0} role="application" aria-label={`Graph of ${data.nodes.length} assets. Arrows walk along edges, Enter opens. Chosen: ${own?.asset ?? "none"}, ${own?.status ?? ""}`}
          onPointerDown={(event) => { drag.current = { x: event.clientX, y: event.clientY, moved: false }; event.currentTarget.setPointerCapture(event.pointerId); }}
          onPointerMove={(event) => {
            if (drag.current) {
              const [dx, dy] = [event.clientX - drag.current.x, event.clientY - drag.current.y];
              if (Math.abs(dx) + Math.abs(dy) > 3) drag.current.moved = true;
              if (drag.current.moved) {
                view.current = { ...view.current, x: view.current.x + dx, y: view.current.y + dy };
                drag.current = { x: event.clientX, y: event.clientY, moved: true };
                draw();
              }
              return;
            }
            const found = find(event.nativeEvent.offsetX, event.nativeEvent.offsetY);
            if (found !== hovered.current) {
              hovered.current = found;
              event.currentTarget.title = found >= 0 ? `${data.nodes[found]?.asset ?? ""}: ${data.nodes[found]?.status ?? ""}` : "";
              draw();
            }
          }}
          onPointerUp={(event) => {
            const moved = drag.current?.moved;
            drag.current = undefined;
            if (moved) return;
            const found = find(event.nativeEvent.offsetX, event.nativeEvent.offsetY);
            if (found >= 0) {
              if (found === chosen && view.current.scale > 0.5) open(found);
              setChosen(found);
            }
          }}
          onDoubleClick={(event) => open(find(event.nativeEvent.offsetX, event.nativeEvent.offsetY))}
          onKeyDown={(event) => {
            if (event.key.startsWith("Arrow")) { event.preventDefault(); walk(event.key); }
            else if (event.key === "Enter") open(chosen);
            else if (event.key === "+") zoom(1.25);
            else if (event.key === "-") zoom(0.8);
            else if (event.key === "0") fitAll();
          }}
        />
        <div className="legend" aria-hidden="true">{LEGEND.map((status) => <Status key={status} status={status} />)}</div>
        <div className="tools"><button type="button" className="button" onClick={() => zoom(1.25)} aria-label="Larger">+</button><button type="button" className="button" onClick={() => zoom(0.8)} aria-label="Smaller">−</button><button type="button" className="button" onClick={fitAll}>Fit</button></div>
      </div>
      {own ? <p className="row"><Status status={own.status} /><Link to="/assets/$asset" params={{ asset: own.asset }}>{own.asset}</Link><span className="muted">{own.kind}, group {own.group}, reads {plural(near.before[chosen]?.length ?? 0, "asset")}, is read by {near.after[chosen]?.length ?? 0}</span><Link className="button small" to="/lineage" search={{ focus: own.asset, depth: "2" }}>Only around it</Link></p> : null}
      <details><summary>The same as a list</summary><ul>{data.nodes.slice(0, 500).map((node, at) => <li key={node.asset}><Link to="/assets/$asset" params={{ asset: node.asset }}>{node.asset}</Link>, {node.status}{near.before[at]?.length ? `, reads ${near.before[at]?.map((other) => data.nodes[other]?.asset).join(", ")}` : ""}</li>)}</ul></details>
    </>
  );
}

function fit(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (context.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}
