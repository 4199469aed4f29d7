import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page carries its own base, so that it works below any path; parts have a digest in their names, so that they never change.
export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    assetsDir: "static",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    target: "es2022",
  },
});
